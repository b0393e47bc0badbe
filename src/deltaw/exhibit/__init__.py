"""The paper's figures and tables, and one of training: each made from the tables alone."""
