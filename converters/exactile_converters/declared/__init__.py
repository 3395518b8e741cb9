"""What the files of makers and tools say of a model beside its network."""
