"""Readers of trained models, one package a format; each yields a `Graph` of the FLOAT stage."""
