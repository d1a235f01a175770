"""steppo/PaperSearch-v0: find the papers that a research question asks for, by searching and by following citations."""
