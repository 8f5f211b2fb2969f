"""Inferencers: photos and words in, results out, for people who know no mm."""
