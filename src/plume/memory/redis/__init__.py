"""The store on Redis: one script on the server, one file for each of its sides."""
