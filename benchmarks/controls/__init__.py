"""What a gain of LatentR³ is due to: the same backbone with and without latents, under the same objectives.

A *trial* is one model on one dataset with one seed; its record and the ranks of its targets stand in
``docs/results/controls/<dataset>/<trial>-s<seed>.{json,parquet}``. Trials of the same seed and dataset run
on one machine with one version of the code, many at a time:

    python -m benchmarks.controls prepare --data DIR --datasets DIR      raw files to dataset directories
    python -m benchmarks.controls run --datasets DIR --queue FILE --jobs 14 --gpu-jobs 2 --minutes 5
    python -m benchmarks.controls page                                   docs/research/latent-controls.md

``run`` imports neither MLflow nor KFP. A trial whose record exists is not run again. Trials marked ``valid``
are evaluated on validation; all others use the test split once, and ``docs/results/test-split.log`` says
when.
"""
