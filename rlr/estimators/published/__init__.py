"""Methods as their authors published them."""
