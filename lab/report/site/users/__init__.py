"""The pages for users: will boxlite work on my host?"""
