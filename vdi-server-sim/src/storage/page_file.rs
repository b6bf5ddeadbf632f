//! Data files: pages, allocation.
