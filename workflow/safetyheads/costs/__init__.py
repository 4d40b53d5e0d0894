"""What a study costs, told before it runs: operations and bytes by formula, rates by device. Uses `config`."""
