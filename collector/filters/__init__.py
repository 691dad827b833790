"""Filters of AIP-160: text -> syntax (`grammar`) -> meaning (`meaning`) -> SQL with bound values (`sql`)."""
