"""Explanations beside their slides, in a browser or a notebook, to look at and to question.

It reads what ``pathology explain`` wrote and starts without torch; a model is loaded when it is
asked something, in a process of its own.
"""
