"""How trained networks are judged: whole images, at full resolution, as published."""
