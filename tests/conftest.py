"""What all tests may use: a stand-in for Hugging Face (hub_stand_in.py) lies beside this file."""
