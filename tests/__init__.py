"""The tests; a package, so that pytest puts the checkout on the path and they import one another."""
