"""The methods: one learner per method around one loop."""
