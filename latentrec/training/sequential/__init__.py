"""ID-based sequence encoders: SASRec, GRU4Rec, Caser, LARES (SPT) and its post-training (RPT)."""
