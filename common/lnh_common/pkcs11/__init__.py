"""PKCS#11's words: object classes, attributes and mechanisms, each a row of a table."""
