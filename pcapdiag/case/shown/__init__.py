"""What a finding shows beside its sentence: figures, sequence diagrams, frames in words."""
