"""The comparison as people read it: page, Markdown, terminal, charts."""
