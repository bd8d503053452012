"""The PKCS#11 gateway: applications that speak PKCS#11 reach keyrings through a Unix socket and the SDK."""
