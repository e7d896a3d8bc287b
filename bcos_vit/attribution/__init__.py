"""Maps of any method for any network, before anything scales them: what B-cos is compared with."""
