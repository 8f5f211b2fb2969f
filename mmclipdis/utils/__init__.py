"""What every floor may use; needs neither torch nor an mm package."""
