"""ShapeScenes, the embedded default world: coloured shapes on textured grounds."""
