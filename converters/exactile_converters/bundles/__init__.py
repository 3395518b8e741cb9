"""Write a bundle: deploy and check the network, name its classes, choose its tile."""
