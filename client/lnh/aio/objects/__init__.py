"""Keys and other objects, as `lnh.objects` has them, with `await`."""
