"""The dashboard: static pages that anybody may have, and streams of events for those who may see the pools."""
