"""Encoders of single images, preprocessing on the device, and augmentation."""
