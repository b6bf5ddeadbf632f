//! Where fixed pages are, and what they say.
