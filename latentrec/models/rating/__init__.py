"""Rating predictors: means, biases, matrix factorisation, and language models that reason first."""

from latentrec.models.rating.serving import ServedRating, ServedRatingPredictor, load_rating_predictor

RATING_SYSTEMS = ("reczero", "recone", "rating_stand_in")

__all__ = ["RATING_SYSTEMS", "ServedRating", "ServedRatingPredictor", "load_rating_predictor"]
