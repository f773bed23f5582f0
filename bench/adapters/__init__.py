"""One adapter for each system that is measured; all have the methods of `base.Adapter`."""
