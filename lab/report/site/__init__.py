"""The support table as a static web site: pages about hosts for users, and about cells for maintainers."""
