"""KFP played from a compiled pipeline: its driver, its launcher's input, and Argo's retries, without a
cluster.

The rules are what a real KFP 2.17 was seen to do and what its source says (docs/operations.md). Where this
and the real thing differ, the real thing is right.
"""
