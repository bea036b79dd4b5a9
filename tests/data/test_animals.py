from rlr.data import SimpleAnimals


def test_45_animals_and_16_others():
    data = SimpleAnimals()
    train, held_out = data.read("train"), data.read("test")
    assert (len(set(train)), len(set(held_out))) == (45, 16)
    assert held_out == data.read("val") == data.read("predict")
    assert not set(train) & set(held_out)
    assert all(prompt.startswith("an " if prompt.split()[1][0] in "aeiou" else "a ") for prompt in [*train, *held_out])
    # two to tell them from any other list
    assert {"a hedgehog", "a kangaroo"} < set(train)
