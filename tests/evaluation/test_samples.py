def test_prompts_with_line_breaks_have_keys_of_their_own():
    assert SampleSet(["a\nb", "c"]).key != SampleSet(["a", "b\nc"]).key
    assert SampleSet(["a', 'b"]).key != SampleSet(["a", "b"]).key
