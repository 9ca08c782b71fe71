"""fewbits: trained networks in few bits."""
