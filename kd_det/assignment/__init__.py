"""Label assignments as data: mixtures (torch only), and decisions recorded on one head and replayed on another."""
