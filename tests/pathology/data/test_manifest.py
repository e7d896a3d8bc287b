"""Manifests are checked as a whole, and what is wrong is said with its row."""

import pytest

from pathology.data.manifest import read_slide_manifest, read_tile_manifest
from pathology.errors import LeakageError, ManifestError


@pytest.fixture
def write(tmp_path):
    """Writes a manifest and the (empty) files it names."""

    def write(text, files=("a.png", "b.png")):
        for name in files:
            (tmp_path / name).touch()
        path = tmp_path / "table.csv"
        path.write_text(text)
        return path

    return write


def test_a_good_tile_manifest_has_absolute_paths(write, tmp_path):
    table = read_tile_manifest(write("path,label,split\na.png,x,train\nb.png,y,val\n"))
    assert list(table["path"]) == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert list(table["label"]) == ["x", "y"]


def test_the_root_and_path_column_can_be_given(write, tmp_path):
    path = write("file,label,split\na.png,x,train\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    table = read_tile_manifest(path, root=tmp_path / "images", path_column="file")
    assert table["path"][0] == str(tmp_path / "images" / "a.png")


@pytest.mark.parametrize("root", [None, "s3://bucket/slides"])
def test_a_file_of_this_machine_may_be_said_as_a_url(write, tmp_path, root):
    path = write(f"slide_id,path\na,file://{tmp_path}/a.png\nb,{tmp_path}/b.png\n")
    table = read_slide_manifest(path, root=root)
    assert list(table["path"]) == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_other_names_are_beside_the_manifest_where_that_is_by_url(write):
    table = read_slide_manifest(
        write("slide_id,path\na,a.svs\nb,s3://other/b.svs\n"), root="s3://bucket/slides"
    )
    assert list(table["path"]) == ["s3://bucket/slides/a.svs", "s3://other/b.svs"]


def test_a_file_of_another_machine_is_refused(write):
    with pytest.raises(ManifestError, match=r"table\.csv: file://server/a\.svs: a file on another"):
        read_slide_manifest(write("slide_id,path\na,file://server/a.svs\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a CSV table"),
        ("path,label,split\n", "empty"),
        ("path,split\na.png,train\n", "column 'label' is missing; got path, split"),
        ("path,label,split\na.png,,train\n", "row 2 has no label"),
        ("path,label,split\na.png,x,train\nb.png,x,holdout\n", "row 3 has split 'holdout'"),
        ("path,label,split\na.png,x,train\nc.png,x,train\n", "1 of 2 files are missing"),
        ("path,label,split\na.png,x,train\nc.png,x,train\n", "c.png (row 3)"),
        ("path,label,split,label\na.png,x,train,y\n", "two columns are called 'label'"),
        ("path, split,split,label\na.png,x,train,y\n", "two columns are called 'split'"),
        ("path;label;split\na.png;x;train\n", "separated by semicolons: save it with commas"),
        ("path,label,split,Patient_ID\na.png,x,train,p\n", "must be called 'patient_id'"),
        ("path,label,split\na.png,x,train\n./a.png,y,train\n", "'x' (row 2) and 'y' (row 3)"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(write, text, said):
    with pytest.raises(ManifestError) as error:
        read_tile_manifest(write(text))
    assert said in str(error.value)


def test_no_manifest_at_all(tmp_path):
    with pytest.raises(ManifestError, match="no such manifest"):
        read_tile_manifest(tmp_path / "none.csv")


def test_a_patient_in_two_splits_is_refused(write):
    rows = "a.png,x,train,p1\nb.png,x,val,p1\n"
    with pytest.raises(LeakageError, match=r"'p1' in train \(row 2\) and val \(row 3\)"):
        read_tile_manifest(write("path,label,split,patient_id\n" + rows))


def test_columns_of_slides_mean_nothing_among_tiles(write):
    assert len(read_tile_manifest(write("path,label,split,MPP\na.png,x,train,0.5\n"))) == 1
    with pytest.raises(ManifestError, match="'MPP' must be called 'mpp'"):
        read_slide_manifest(write("slide_id,path,MPP\ns,a.png,0.5\n"))


@pytest.mark.parametrize("other", ["p1 ", " p1", '"p1"'])
def test_blanks_do_not_make_one_patient_two(write, other):
    rows = f"a.png,x,train,p1\nb.png,x,val,{other}\n"
    with pytest.raises(LeakageError, match="'p1' in train"):
        read_tile_manifest(write("path,label,split,patient_id\n" + rows))


def test_an_image_is_one_however_its_path_is_spelt(write, tmp_path):
    other = f"../{tmp_path.name}/a.png"
    with pytest.raises(LeakageError, match="values of path"):
        read_tile_manifest(write(f"path,label,split\na.png,x,train\n{other},x,val\n"))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ", ").replace("a.png, ", "a.png,"),
        lambda text: text.replace("tumour", '"tumour"').replace("path", '"path"'),
    ],
)
def test_spreadsheets_write_what_is_read(write, change):
    """Byte order marks, other line ends, blanks and quotes."""
    path = write("")
    path.write_bytes(change("path,label,split\na.png,tumour,train\n").encode())
    table = read_tile_manifest(path)
    assert list(table.columns) == ["path", "label", "split"]
    assert table.loc[0, ["label", "split"]].tolist() == ["tumour", "train"]


def test_unknown_patients_do_not_count_as_one(write):
    rows = "a.png,x,train,\nb.png,x,val,\n"
    assert len(read_tile_manifest(write("path,label,split,patient_id\n" + rows))) == 2


def test_slides_have_numbers_for_mpp(write):
    table = read_slide_manifest(write("slide_id,path,mpp\ns1,a.png,0.5\ns2,b.png,\n"))
    assert table["mpp"][0] == 0.5
    assert table["mpp"].isna()[1]


def test_a_slide_twice_is_refused(write):
    with pytest.raises(ManifestError, match=r"'s1' stands in more than one row \(row 3\)"):
        read_slide_manifest(write("slide_id,path\ns1,a.png\ns1,b.png\n"))


@pytest.mark.parametrize("mpp", ["0;25", "-1", "0", "inf", "half"])
def test_an_mpp_that_is_no_length_is_refused(write, mpp):
    with pytest.raises(ManifestError, match=r"row 2 has mpp .*wanted micrometres per pixel"):
        read_slide_manifest(write(f"slide_id,path,mpp\ns1,a.png,{mpp}\n"))


def test_rows_longer_than_the_header_are_refused(write):
    with pytest.raises(ManifestError, match="not a CSV table"):
        read_tile_manifest(write("path,label,split\na.png,x,train,9\nb.png,y,val,9\n"))
