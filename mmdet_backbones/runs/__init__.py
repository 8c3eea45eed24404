"""What finished trainings left in their work directories."""
