"""One search strategy a module; ``emodarts.recipe.search`` names them."""
