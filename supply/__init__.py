"""What the server is made of beside its own code: under which licences, and the bill of materials."""
