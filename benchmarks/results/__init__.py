"""`make results`: train and compare the systems, one cell at a time, and write ``docs/results.md``.

A *cell* is one system on one dataset with one seed. Its record and the rank of every test target stand in
``docs/results/<dataset>/<cell>-s<seed>.{json,parquet}``; a cell whose record exists is not run again, so the
whole can be stopped and resumed at any moment. Choices (epochs, learning rate, α of D3) are made on
validation; each cell looks at the test split once, and ``docs/results/test-split.log`` says when.
"""
