"""What converters of data sets share."""
