"""Orders entries through etcd, which decides order, primary and fence; each member's database stays the state. Pure."""
