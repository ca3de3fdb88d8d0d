"""The vocabulary of the generated sample: product families, their complements in order, brands, phrases."""

FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Coffee",
        (
            "Espresso Machine",
            "Burr Coffee Grinder",
            "Milk Frothing Pitcher",
            "Espresso Cups &amp; Saucers",
            "Espresso Descaler",
            "Dark Roast Coffee Beans",
        ),
    ),
    (
        "Guitar",
        (
            "Acoustic Guitar",
            "Clip-On Guitar Tuner",
            "Guitar Strings, Light Gauge",
            "Guitar Capo",
            "Padded Guitar Strap",
            "Guitar Picks &amp; Tin",
        ),
    ),
    (
        "Camera",
        (
            "Mirrorless Camera",
            "Portrait Lens",
            "Camera Memory Card",
            "Camera Tripod",
            "Camera Shoulder Bag",
            "Lens Cleaning Kit",
        ),
    ),
    (
        "Garden",
        (
            "Raised Garden Bed",
            "Organic Potting Soil",
            "Tomato Seeds",
            "Garden Hose",
            "Pruning Shears",
            "Plant Food Spikes",
        ),
    ),
    (
        "Baking",
        (
            "Stand Mixer",
            "Baking Sheet Set",
            "Springform Cake Pan",
            "Piping Tips &amp; Bags",
            "Silicone Baking Mat",
            "Vanilla Extract",
        ),
    ),
    (
        "Cycling",
        (
            "Road Bike Helmet",
            "Bike Headlight",
            "Bike Floor Pump",
            "Cycling Gloves",
            "Bike Lock",
            "Chain Lubricant",
        ),
    ),
    (
        "Painting",
        (
            "Wooden Easel",
            "Stretched Canvas Panels",
            "Acrylic Paint Set",
            "Paint Brush Set",
            "Palette Knife",
            "Gesso Primer",
        ),
    ),
    (
        "Camping",
        (
            "Two-Person Tent",
            "Down Sleeping Bag",
            "Inflatable Sleeping Pad",
            "Camping Stove",
            "LED Headlamp",
            "Fuel Canister",
        ),
    ),
    (
        "Office",
        (
            "Label Maker",
            "Label Tape, White",
            "Hanging File Folders",
            "Desk Organizer",
            "Gel Pens, Black",
            "Sticky Notes",
        ),
    ),
    (
        "Yoga",
        ("Yoga Mat", "Cork Yoga Block", "Yoga Strap", "Foam Roller", "Yoga Towel", "Mat Cleaning Spray"),
    ),
    (
        "Dog",
        (
            "Dog Crate",
            "Orthopedic Dog Bed",
            "Dog Harness &amp; Leash",
            "Dog Chew Toy",
            "Dog Grooming Brush",
            "Dog Dental Treats",
        ),
    ),
    (
        "Sewing",
        (
            "Sewing Machine",
            "Bobbin Set",
            "Fabric Scissors",
            "Quilting Fabric Squares",
            "Sewing Pins &amp; Cushion",
            "Polyester Thread",
        ),
    ),
)
"""Families with their product types in the order of buying; the last one is bought again and again."""

BRANDS = (
    "Alder", "Bexley", "Corvina", "Dunmore", "Eastgate", "Falken", "Grenwood", "Halden",
    "Ivory Lane", "Juniper", "Kestrel", "Lindqvist", "Marlow", "Northbay", "Oakhurst", "Pemberton",
    "Quill", "Redfern", "Solana", "Thornton", "Umber", "Valmont", "Westport", "Yarrow",
)  # fmt: skip
"""Each family is served by a few of them."""

SERIES = ("", " Pro", " Classic", " Essentials", " Studio", " Compact")
"""Suffixes of the brand once every plain brand of a family is used."""

SUMMARIES = {
    1: ("Broke within a week", "Do not buy", "Very disappointed"),
    2: ("Not what I hoped for", "Below average", "Would not buy again"),
    3: ("It is okay", "Does the job", "Average"),
    4: ("Very good", "Happy with it", "Solid choice"),
    5: ("Love it", "Perfect", "Could not be better"),
}
"""Headlines of reviews by stars."""

OPENINGS = {
    1: "The {kind} from {brand} failed almost at once.",
    2: "I expected more of this {kind}.",
    3: "A {kind} like any other.",
    4: "This {brand} {kind} works well.",
    5: "Best {kind} I have owned, {brand} knows how it is done.",
}
"""First sentence of a review by stars."""

DETAILS = {
    1: ("Sent it back.", "The material feels cheap.", "Customer service never answered."),
    2: ("It wears out too fast.", "The size is off.", "Instructions are hard to follow."),
    3: ("Fair for the price.", "Nothing special.", "Some things could be better."),
    4: ("Good value.", "Well made.", "Arrived quickly and works as described."),
    5: ("I use it every day.", "Bought a second one as a gift.", "Worth every cent."),
}
"""Further sentences of a review by stars."""
