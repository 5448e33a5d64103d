"""What Lighthouse says of the built site; run by ``make lighthouse``."""
