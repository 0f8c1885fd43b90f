def refuse_removed(words): pass
