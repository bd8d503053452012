"""Migration: keys, certificates and data of a PKCS#11 token, or of a partition, come into a keyring.

`plan` decides, and is pure; `carry` carries out; `tokens` is the PKCS#11 token; `journal` keeps what was done.
"""
