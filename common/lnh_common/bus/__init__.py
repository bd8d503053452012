"""The bus between services: ROUTER on the serving side, DEALER on the asking side, typed operations in between."""
