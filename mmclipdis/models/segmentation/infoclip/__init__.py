"""InfoCLIP: fine-tuning of CAT-Seg that keeps the alignment of pixels and text."""
