"""How a study's trainings are chosen, run in processes and kept."""
