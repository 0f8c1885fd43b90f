"""The pages for people: sessions, forms, templates. No page needs a script; none asks another host for anything."""
