"""The data plane: may this key do this, now?"""
